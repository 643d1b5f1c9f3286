/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/cli/transcode.h"
#include "offload/client/keyservice.h"
#include "offload/vm/qcow2.h"

/* Any tweak does; this one is the number of no unit that an image has. */
#define CHECK_TWEAK (1ull << 48)

/* ---- keys ---- */

static int raw_key(struct rs_tc *t, struct rs_tc_side *side, uint32_t use)
{
    const struct rs_side_spec *s = side->spec;
    if (t->open_key != NULL) return t->open_key(t, side, use);
    RS_CLOSE int fd = open(s->key_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return rs_failure_errno(&t->f, errno, "open", s->key_path);
    rs_passphrase_warn(s->key_path, fd);
    struct reseal_key_use how = {.size = sizeof(how),
                                 .cipher = RESEAL_XTS,
                                 .use = use,
                                 .unit = s->unit,
                                 .step = s->step,
                                 .name = s->key_name};
    int code = reseal_key_raw(t->service, fd, &how, &side->key);
    if (code == RESEAL_EKEYBAD)
        return rs_failure_set(&t->f, RS_EXIT_KEY,
                              "%s is not an XTS key: 32 or 64 bytes with two different halves", s->key_path);
    if (code != 0) return rs_failure_code(&t->f, code, s->key_path);
    side->has_key = true;
    return 0;
}

/* A raw side as it is written on the command line. */
static void take_spec(struct rs_tc_side *side)
{
    const struct rs_side_spec *s = side->spec;
    side->cipher = s->kind == RS_SIDE_PLAIN ? RESEAL_PLAIN : RESEAL_XTS;
    side->unit = s->unit;
    side->step = s->step;
    side->first_tweak = s->tweak;
    side->offset = s->offset;
}

static int open_source_key(struct rs_tc *t, uint32_t use)
{
    struct rs_tc_side *side = &t->src;
    if (side->spec->kind == RS_SIDE_LUKS) return rs_tc_luks_key(t, side, &t->o.src_pass, "source", use);
    take_spec(side);
    return side->spec->kind == RS_SIDE_XTS ? raw_key(t, side, use) : 0;
}

/* How many bytes of data the source has: by its header or option, by the file else; both must agree. */
static int find_data_size(struct rs_tc *t)
{
    const struct rs_tc_side *s = &t->src;
    const struct rs_file *file = s->file;
    uint64_t said = s->spec->kind == RS_SIDE_LUKS ? s->luks.data_size : s->spec->size;
    if (s->spec->kind == RS_SIDE_LUKS && s->offset < s->luks.header_size)
        return rs_failure_set(&t->f, RS_EXIT_FORMAT,
                              "%s is the header of an image whose data is in another file", file->path);
    if (s->offset > file->size || (said != 0 && !rs_range_ok(s->offset, said, file->size)))
        return rs_failure_set(&t->f, RS_EXIT_FORMAT,
                              "%s is truncated: %llu bytes are there, data from %llu on %s%llu", file->path,
                              (unsigned long long)file->size, (unsigned long long)s->offset,
                              said != 0 ? "needs " : "begins at ", (unsigned long long)(s->offset + said));
    t->data_size = said != 0 ? said : file->size - s->offset;
    uint32_t unit = s->unit != 0 ? s->unit : 512;
    if (t->data_size % unit != 0)
        return rs_failure_set(&t->f, RS_EXIT_FORMAT,
                              "%s is truncated: its %llu bytes of data are not whole units of %u", file->path,
                              (unsigned long long)t->data_size, unit);
    return 0;
}

/* New keys: in place the image keeps its version and unit unless told otherwise. */
static int open_destination_key(struct rs_tc *t, uint32_t use)
{
    struct rs_tc_side *side = &t->dst;
    if (side->spec->kind != RS_SIDE_LUKS) {
        take_spec(side);
        return side->spec->kind == RS_SIDE_XTS ? raw_key(t, side, use) : 0;
    }
    struct reseal_luks_format *format = &t->o.format;
    if (t->o.in_place && t->src.spec->kind == RS_SIDE_LUKS) {
        if (format->version == 0) format->version = t->src.luks.version;
        if (format->unit == 0 && format->version == 2) format->unit = t->src.luks.unit;
    }
    uint32_t unit = format->unit != 0 ? format->unit : format->version == 1 ? 512 : 4096;
    if (t->data_size % unit != 0 && format->unit == 0) {
        format->unit = 512;
        unit = 512;
    }
    if (t->data_size % unit != 0)
        return rs_failure_set(&t->f, RS_EXIT_USAGE,
                              "%llu bytes of data are not whole units of %u: use a smaller --unit",
                              (unsigned long long)t->data_size, unit);
    return rs_tc_luks_format(t, t->o.in_place ? t->src.offset : 0, use);
}

static int settle_units(struct rs_tc *t)
{
    if (t->src.unit == 0) t->src.unit = t->dst.unit;
    if (t->dst.unit == 0) t->dst.unit = t->src.unit;
    t->granule = RS_MAX(t->src.unit, t->dst.unit);
    if (t->data_size % t->granule != 0)
        return rs_failure_set(&t->f, RS_EXIT_USAGE, "%llu bytes of data are not whole units of %u",
                              (unsigned long long)t->data_size, t->granule);
    if (t->dst.spec->kind != RS_SIDE_LUKS && t->dst.spec->size != 0 && t->dst.spec->size < t->data_size)
        return rs_failure_set(&t->f, RS_EXIT_USAGE,
                              "size=%llu of the destination is less than the %llu bytes of the source",
                              (unsigned long long)t->dst.spec->size, (unsigned long long)t->data_size);
    if (t->o.in_place && t->dst.offset != t->src.offset)
        return rs_failure_set(&t->f, RS_EXIT_USAGE, "in place needs the same data offset on both sides");
    return 0;
}

/* ---- session, queue, files ---- */

int rs_tc_session(struct rs_tc *t, const struct rs_tc_side *from, const struct rs_tc_side *to,
                  reseal_session **out)
{
    struct reseal_transform transform = {.size = sizeof(transform), .counter_at = RESEAL_NO_COUNTER};
    transform.source = (struct reseal_side){.cipher = from->cipher, .unit = from->unit, .step = from->step};
    transform.destination = (struct reseal_side){.cipher = to->cipher, .unit = to->unit, .step = to->step};
    if (from->has_key) transform.source.key = from->key;
    if (to->has_key) transform.destination.key = to->key;
    return reseal_session_open(t->service, &transform, out);
}

int rs_tc_pipeline(struct rs_tc *t, uint32_t chunk, uint32_t slots)
{
    t->chunk = RS_MAX(chunk, t->granule);
    t->slots = slots;
    uint32_t depth = 1;
    while (depth < slots) depth *= 2;
    struct reseal_queue_options options = {
        .size = sizeof(options), .depth = depth, .arena = (uint64_t)t->chunk * slots};
    int code = reseal_queue_open(t->service, &options, &t->queue);
    if (code != 0) return rs_failure_code(&t->f, code, "cannot open a queue");
    t->arena = reseal_queue_arena(t->queue, &t->arena_len);
    if (t->arena == NULL || t->arena_len < (uint64_t)t->chunk * slots)
        return rs_failure_set(&t->f, RS_EXIT_SERVICE, "the service gave a smaller arena than was asked for");
    struct rs_io_options io = {.kind = t->o.io,
                               .depth = 2 * slots + 8,
                               .inline_buffered = t->o.io != RS_IO_URING,
                               .arena = t->arena,
                               .arena_len = t->arena_len,
                               .ready_fd = reseal_queue_fd(t->queue)};
    code = rs_io_open(&t->io, &io);
    return code == 0 ? 0 : rs_failure_errno(&t->f, code, "use", "io_uring (try --io pread)");
}

int rs_tc_check_value(struct rs_tc *t, uint8_t check[RS_JOURNAL_CHECK])
{
    struct reseal_job job = {.session = t->session,
                             .in = t->arena,
                             .out = t->arena,
                             .len = t->granule,
                             .src_tweak = t->src.cipher == RESEAL_XTS ? CHECK_TWEAK : 0,
                             .dst_tweak = t->dst.cipher == RESEAL_XTS ? CHECK_TWEAK : 0};
    struct reseal_completion c = {0};
    int code;
    do {
        memset(t->arena, 0, t->granule);
        code = reseal_submit(t->queue, &job, 1);
        if (code == 1) code = reseal_wait(t->queue, &c, 1, -1);
        if (code == 1) code = c.status;
    } while (code == RESEAL_ELOST);
    if (code != 0) return rs_failure_code(&t->f, code, "the first job failed");
    memcpy(check, t->arena, RS_JOURNAL_CHECK);
    memset(t->arena, 0, t->granule);
    return 0;
}

static struct rs_journal_side journal_side(const struct rs_tc_side *s)
{
    return (struct rs_journal_side){.kind = s->spec->kind,
                                    .unit = s->unit,
                                    .step = s->step,
                                    .first_tweak = s->first_tweak,
                                    .offset = s->offset};
}

void rs_tc_super(const struct rs_tc *t, struct rs_journal_super *super)
{
    *super = (struct rs_journal_super){.mode = t->o.in_place ? RS_JOURNAL_IN_PLACE : RS_JOURNAL_COPY,
                                       .flags = t->skip_holes ? RS_JOURNAL_SKIP_HOLES : 0,
                                       .zone_size = t->o.in_place ? t->o.zone : 0,
                                       .source = journal_side(&t->src),
                                       .destination = journal_side(&t->dst),
                                       .data_size = t->data_size,
                                       .source_file_size = t->src_file.size};
    if (t->o.in_place) return;
    super->source_dev = t->src_file.dev;
    super->source_ino = t->src_file.ino;
    super->source_mtime_ns = t->src_file.mtime_ns;
    super->destination_size = t->dst.offset + t->data_size;
    super->header_len[1] = t->dst.header_len;
}

static int open_service(struct rs_tc *t)
{
    struct reseal_options options = {
        .size = sizeof(options), .runtime_dir = t->o.runtime_dir, .tenant = t->o.tenant};
    int code = reseal_open(&t->service, &options);
    if (code != 0) return rs_failure_set(&t->f, rs_exit_of(code), "%s", reseal_strerror(code));
    rs_keyservice_stop_when(t->service, rs_tc_stopped);
    return 0;
}

/*
 * What will be flushed goes by O_DIRECT: it has to reach the disk anyway, and
 * a copy and its write-back are saved. A source goes the same way, except when
 * it is in the page cache.
 */
unsigned rs_tc_io_flags(const struct rs_tc *t, bool source)
{
    if (t->o.direct) return RS_FILE_DIRECT;
    if (t->o.buffered || (t->o.no_sync && !source)) return 0;
    return RS_FILE_TRY_DIRECT | (source && !t->o.in_place ? RS_FILE_UNCACHED : 0u);
}

/* ---- where the journal is, and whether there is one ---- */

static int drop_state(struct rs_tc *t)
{
    if (t->journal.super.mode != RS_JOURNAL_COPY)
        return rs_failure_set(&t->f, RS_EXIT_REFUSED,
                              "%s belongs to an image that is being re-encrypted in place", t->journal_path);
    int code = rs_journal_remove(&t->journal);
    return code == 0 ? 0 : rs_failure_errno(&t->f, code, "remove", t->journal_path);
}

static int find_journal(struct rs_tc *t, bool needed)
{
    const struct rs_file *file = t->o.in_place ? &t->src_file : &t->dst_file;
    const char *path = t->o.in_place ? t->o.src.path : t->o.dst.path;
    struct stat st;
    bool block = file->fd >= 0 ? file->block : stat(path, &st) == 0 && S_ISBLK(st.st_mode);
    if (t->o.journal != NULL) {
        snprintf(t->journal_path, sizeof(t->journal_path), "%s", t->o.journal);
    } else if (!block) {
        const char *suffix = t->o.in_place ? ".reseal-journal" : ".reseal-state";
        if ((size_t)snprintf(t->journal_path, sizeof(t->journal_path), "%s%s", path, suffix) >=
            sizeof(t->journal_path))
            return rs_failure_set(&t->f, RS_EXIT_USAGE, "the name %s is too long", path);
    } else if (needed) {
        return rs_failure_set(&t->f, RS_EXIT_USAGE,
                              "%s is a block device: say where the journal goes (--journal PATH)", path);
    }
    if (t->journal_path[0] == '\0') return 0;
    bool direct = t->o.in_place && !t->o.buffered;
    switch (rs_journal_open(&t->journal, t->journal_path, direct)) {
    case RS_JOURNAL_ENDED:
        if (unlink(t->journal_path) != 0) return rs_failure_errno(&t->f, errno, "remove", t->journal_path);
        return 0;
    case RS_JOURNAL_DAMAGED:
        return rs_failure_set(&t->f, RS_EXIT_FORMAT,
                              "%s is there but is no journal that can be read: look what it is, "
                              "move it away if it is not one",
                              t->journal_path);
    case RS_JOURNAL_FOREIGN:
        return rs_failure_set(&t->f, RS_EXIT_REFUSED,
                              "%s is not yours alone: remove it, or see who put it there", t->journal_path);
    case RS_JOURNAL_THERE:
        /* A state without its destination, or of one that shall be replaced, is of no use. */
        if (!t->o.in_place && (t->dst_file.fd < 0 || t->o.force)) return drop_state(t);
        t->resumed = true;
        return 0;
    default:
        return 0;
    }
}

/* What a journal says, in place of headers and options that may be gone or changed. */
static int adopt_journal(struct rs_tc *t)
{
    const struct rs_journal_super *s = &t->journal.super;
    if (s->mode != (t->o.in_place ? RS_JOURNAL_IN_PLACE : RS_JOURNAL_COPY) ||
        s->source.kind != t->o.src.kind || s->destination.kind != t->o.dst.kind ||
        s->source_file_size != t->src_file.size)
        return rs_failure_set(&t->f, RS_EXIT_REFUSED,
                              "%s belongs to another job: give the command that was interrupted, "
                              "or name another --journal",
                              t->journal_path);
    if (!t->o.in_place && (s->source_dev != t->src_file.dev || s->source_ino != t->src_file.ino ||
                           s->source_mtime_ns != t->src_file.mtime_ns))
        return rs_failure_set(&t->f, RS_EXIT_REFUSED,
                              "%s is not the source that %s was made from, or it changed since: "
                              "remove the latter and its destination to start over",
                              t->src_file.path, t->journal_path);
    if (t->o.in_place) t->o.zone = s->zone_size;
    for (unsigned i = 0; i < 2; i++) {
        if (s->header_len[i] == 0) continue;
        struct rs_tc_side *side = i == 0 ? &t->src : &t->dst;
        side->header_len = (size_t)s->header_len[i];
        side->offset = i == 0 ? s->source.offset : s->destination.offset;
        int code = rs_journal_header(&t->journal, i, &side->header, &t->f);
        if (code != 0) return code;
    }
    return 0;
}

static bool same_side(const struct rs_journal_side *j, const struct rs_tc_side *s)
{
    return j->unit == s->unit && j->offset == s->offset &&
           (s->cipher == RESEAL_PLAIN || (j->step == s->step && j->first_tweak == s->first_tweak));
}

static int check_resume(struct rs_tc *t)
{
    const struct rs_journal_super *s = &t->journal.super;
    t->skip_holes = t->new_holes = (s->flags & RS_JOURNAL_SKIP_HOLES) != 0;
    uint8_t check[RS_JOURNAL_CHECK];
    int code = rs_tc_check_value(t, check);
    if (code != 0) return code;
    if (!same_side(&s->source, &t->src) || !same_side(&s->destination, &t->dst) ||
        s->data_size != t->data_size || memcmp(check, s->check, sizeof(check)) != 0)
        return rs_failure_set(&t->f, RS_EXIT_KEY,
                              "the keys or sides are not those of the interrupted run in %s",
                              t->journal_path);
    return 0;
}

/* ---- the order of things ---- */

static int open_files_in_place(struct rs_tc *t)
{
    int code = rs_file_open(&t->src_file, t->o.src.path, RS_FILE_WRITE | rs_tc_io_flags(t, true), &t->f);
    if (code != 0) return code;
    if (!t->o.has_dst) return 0;
    struct rs_file other;
    /* A second descriptor of one's own would meet one's own lock: compare by name. */
    struct stat a, b;
    memset(&other, 0, sizeof(other));
    if (stat(t->o.src.path, &a) != 0 || stat(t->o.dst.path, &b) != 0 || a.st_dev != b.st_dev ||
        a.st_ino != b.st_ino)
        return rs_failure_set(&t->f, RS_EXIT_USAGE,
                              "in place SRC and DST are the same file; %s and %s are not", t->o.src.path,
                              t->o.dst.path);
    return 0;
}

int rs_tc_file_open(struct rs_tc *t, struct rs_file *file, unsigned flags)
{
    bool source = file == &t->src_file;
    const struct rs_side_spec *spec = source ? &t->o.src : &t->o.dst;
    if (!spec->qcow2) return rs_file_open(file, spec->path, flags | rs_tc_io_flags(t, source), &t->f);
    return rs_file_open_qcow2(file, spec->path, flags, t->dst.offset + t->data_size, &t->f);
}

static int open_files_apart(struct rs_tc *t)
{
    int code = rs_tc_file_open(t, &t->src_file, 0);
    if (code != 0) return code;
    struct stat st;
    if (stat(t->o.dst.path, &st) != 0) return 0;
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_dev == t->src_file.dev &&
        (uint64_t)st.st_ino == t->src_file.ino)
        return rs_failure_set(&t->f, RS_EXIT_USAGE,
                              "source and destination are the same file: name another "
                              "destination, or use --in-place");
    if (t->o.dst.qcow2) rs_qcow2_mend(t->o.dst.path);
    code = rs_tc_file_open(t, &t->dst_file, RS_FILE_WRITE);
    if (code == 0 && rs_file_same(&t->src_file, &t->dst_file))
        code = rs_failure_set(&t->f, RS_EXIT_USAGE,
                              "source and destination are the same disk: name another "
                              "destination, or use --in-place");
    return code;
}

/* An old destination is only touched when that was asked for. */
static int check_destination(const struct rs_tc *t, struct rs_failure *f)
{
    if (t->o.in_place || t->resumed || t->dst_file.fd < 0 || t->o.force || t->o.existing) return 0;
    return rs_failure_set(f, RS_EXIT_REFUSED,
                          "%s is there already: --force replaces it, --existing writes into it",
                          t->o.dst.path);
}

static int check_room(struct rs_tc *t)
{
    uint64_t need = t->dst.offset + t->data_size;
    if (!t->o.in_place && t->dst_file.fd >= 0 && t->dst_file.block && need > t->dst_file.size)
        return rs_failure_set(&t->f, RS_EXIT_USAGE, "%s is too small: it has %llu bytes, %llu are needed",
                              t->o.dst.path, (unsigned long long)t->dst_file.size, (unsigned long long)need);
    return 0;
}

static void choose_holes(struct rs_tc *t)
{
    bool plain = t->o.src.kind == RS_SIDE_PLAIN;
    t->skip_holes = plain ? t->o.keep_holes : !t->o.fill_holes;
    /* A hole there would show what the destination held before. */
    bool old = t->dst_file.fd >= 0 && (!t->o.force || t->dst_file.block);
    if (t->src_file.block || (!t->o.in_place && old)) t->skip_holes = false;
    t->new_holes = !t->o.in_place && !old && !t->o.fill_holes;
    if (t->o.dst.qcow2 && t->o.dst.offset % RS_QCOW2_CLUSTER != 0) t->skip_holes = false;
}

static int open_keys(struct rs_tc *t)
{
    uint32_t both = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION;
    int code = open_source_key(t, t->o.verify ? both : RESEAL_USE_SOURCE);
    if (code == 0) code = find_data_size(t);
    uint32_t use = t->o.verify ? both : RESEAL_USE_DESTINATION;
    if (code == 0 && t->dst.header != NULL)
        code = rs_tc_luks_key(t, &t->dst, &t->o.dst_pass, "destination", use);
    else if (code == 0)
        code = open_destination_key(t, use);
    if (code == 0) code = settle_units(t);
    if (code == 0) code = check_room(t);
    return code;
}

static int open_all(struct rs_tc *t)
{
    t->src = (struct rs_tc_side){.spec = &t->o.src, .file = &t->src_file};
    t->dst = (struct rs_tc_side){.spec = &t->o.dst, .file = t->o.in_place ? &t->src_file : &t->dst_file};
    int code = t->o.in_place ? open_files_in_place(t) : open_files_apart(t);
    if (code == 0) code = find_journal(t, t->o.in_place);
    if (code == 0 && t->resumed) code = adopt_journal(t);
    if (code == 0 && t->o.resume && !t->resumed)
        code = rs_failure_set(&t->f, RS_EXIT_FAILED, "nothing to resume: no journal at %s", t->journal_path);
    if (code == 0) code = check_destination(t, &t->f);
    if (code == 0) choose_holes(t);
    if (code == 0) code = open_service(t);
    if (code == 0) code = open_keys(t);
    if (code != 0) return code;
    code = rs_tc_session(t, &t->src, &t->dst, &t->session);
    if (code == RESEAL_EPERM)
        return rs_failure_set(
            &t->f, RS_EXIT_REFUSED,
            "cannot open a session: it needs the privilege Cryptographer.Access, and the grants of "
            "the pair: the service's administrator can grant them in the policy, see "
            "reseal-policy(5)");
    if (code != 0) return rs_failure_code(&t->f, code, "cannot open a session");
    rs_file_settle_direct(&t->src_file, t->src.offset, t->data_size);
    rs_file_settle_direct(&t->dst_file, t->dst.offset, t->data_size);
    /* By measurement: copies want to stay in the cache, O_DIRECT wants few and large ones. */
    bool copies =
        !t->src_file.direct && (t->dst_file.fd < 0 ? rs_tc_io_flags(t, false) == 0 : !t->dst_file.direct);
    uint32_t chunk = t->o.chunk != 0 ? t->o.chunk : copies ? 256u << 10 : 2u << 20;
    if (t->o.in_place) chunk = RS_MAX(RS_MIN(chunk, t->o.zone), t->o.zone / (RS_TC_SLOTS_MAX / 2));
    uint32_t slots = t->o.in_place ? 2 * (t->o.zone / chunk) : t->o.depth != 0 ? t->o.depth : copies ? 8 : 6;
    code = rs_tc_pipeline(t, chunk, slots);
    if (code == 0 && t->resumed) code = check_resume(t);
    return code;
}

int rs_tc_open(struct rs_tc *t)
{
    int code = open_all(t);
    if (!rs_tc_stopped()) return code;
    /* What failed is what was waited for. */
    t->f = (struct rs_failure){.exit = RS_EXIT_OK};
    return rs_failure_set(&t->f, RS_EXIT_INTERRUPTED, "interrupted; nothing was changed");
}

void rs_tc_close(struct rs_tc *t)
{
    rs_io_close(t->io);
    if (t->queue != NULL) reseal_queue_close(t->queue);
    if (t->session != NULL) reseal_session_close(t->session);
    if (t->service != NULL) reseal_close(t->service);
    free(t->src.header);
    free(t->dst.header);
    rs_journal_close(&t->journal);
    rs_file_close(&t->dst_file);
    rs_file_close(&t->src_file);
}
