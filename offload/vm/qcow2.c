/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "offload/vm/disk.h"
#include "offload/vm/files.h"
#include "offload/vm/qcow2-internal.h"
#include "reseal/reseal.h"

#define START_MS 60000 /* to begin, on a busy machine */
#define IO_MS    120000
#define END_MS   60000
#define LOCK_MS  5000

/* ---- the child ---------------------------------------------------------------------- */

/* A listening socket that has a name only while we connect to it: *client is the one connection there will
 * be. */
static int make_sockets(int *listener, int *client)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char folder[] = "/tmp/reseal-qcow2-XXXXXX";
    *listener = *client = -1;
    if (mkdtemp(folder) == NULL) return -errno;
    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s/s", folder);
    *listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = *listener >= 0 && *client >= 0 &&
              bind(*listener, (const struct sockaddr *)&at, sizeof(at)) == 0 && listen(*listener, 1) == 0 &&
              connect(*client, (const struct sockaddr *)&at, sizeof(at)) == 0;
    int code = ok ? 0 : -errno;
    (void)unlink(at.sun_path);
    (void)rmdir(folder);
    return code;
}

/* What qemu-nbd is to open; the format is fixed, and nothing that the image names is opened. */
static char *node_text(const char *path, unsigned flags)
{
    struct stat st;
    bool block = stat(path, &st) == 0 && S_ISBLK(st.st_mode);
    const char *discard = (flags & RS_QCOW2_DISCARD) != 0 ? "unmap" : "ignore";
    json_t *file = json_pack("{s:s, s:s, s:s}", "driver", block ? "host_device" : "file", "filename", path,
                             "discard", discard);
    json_t *node = json_pack("{s:s, s:o, s:n, s:s, s:s}", "driver", "qcow2", "file", file, "backing",
                             "discard", discard, "detect-zeroes", "off");
    if (node != NULL && (flags & RS_QCOW2_LOOK) != 0) json_object_set_new(node, "force-share", json_true());
    char *text = node == NULL ? NULL : json_dumps(node, JSON_COMPACT);
    json_decref(node);
    if (text == NULL) return NULL;
    char *full = NULL;
    if (asprintf(&full, "json:%s", text) < 0) full = NULL;
    free(text);
    return full;
}

static int start_child(struct rs_qcow2 *q, const char *path, unsigned flags, int listener)
{
    RS_FREE char *node = node_text(path, flags);
    if (node == NULL) return -EILSEQ;
    const char *argv[10] = {"qemu-nbd", "--shared=1", "--aio=threads"};
    unsigned n = 3;
    argv[n++] = (flags & RS_QCOW2_DIRECT) != 0 ? "--cache=none" : "--cache=writeback";
    argv[n++] = (flags & RS_QCOW2_DISCARD) != 0 ? "--discard=unmap" : "--discard=ignore";
    if ((flags & RS_QCOW2_WRITE) == 0) argv[n++] = "--read-only";
    argv[n] = node;
    struct rs_qcow2_start s = {.argv = argv,
                               .file = path,
                               .writable = (flags & RS_QCOW2_WRITE) != 0,
                               .listener = listener,
                               .death = (flags & RS_QCOW2_DROP) != 0 ? SIGKILL : SIGTERM};
    return rs_qcow2_child_start(&q->child, &s);
}

static int remaining(uint64_t end)
{
    uint64_t now = rs_now_ns();
    return now >= end ? 0 : (int)RS_MIN((end - now) / 1000000 + 1, 1000u);
}

static uint64_t in_ms(unsigned ms)
{
    return rs_now_ns() + ms * 1000000ull;
}

/* Until it can be used; -errno. */
static int shake_hands(struct rs_qcow2 *q, int client)
{
    uint64_t end = in_ms(START_MS);
    if (nbd_add_meta_context(q->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0) return -EIO;
    /* A child that refuses the image may have ended by now. */
    if (nbd_aio_connect_socket(q->nbd, client) != 0) return -ECONNRESET;
    while (nbd_aio_is_ready(q->nbd) != 1) {
        if (nbd_aio_is_dead(q->nbd) == 1 || nbd_aio_is_closed(q->nbd) == 1) return -ECONNRESET;
        if (rs_now_ns() >= end) return -ETIMEDOUT;
        if (nbd_poll(q->nbd, remaining(end)) < 0) return -ECONNRESET;
    }
    int64_t size = nbd_get_size(q->nbd);
    if (size <= 0 || nbd_can_meta_context(q->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1) return -EPROTO;
    q->size = (uint64_t)size;
    return 0;
}

/* Starts it; 0 or -errno. */
static int begin_child(struct rs_qcow2 *q)
{
    int listener, code = make_sockets(&listener, &q->client);
    if (code == 0) code = start_child(q, q->path, q->flags, listener);
    if (listener >= 0) close(listener);
    return code;
}

/* Until it has the image open; -errno. */
static int connect_child(struct rs_qcow2 *q)
{
    int client = q->client;
    q->nbd = nbd_create();
    if (q->nbd == NULL) return -ENOMEM;
    q->client = -1; /* from here on the library owns the socket */
    return shake_hands(q, client);
}

static int end_child(struct rs_qcow2 *q, int ms, char *said, size_t said_len)
{
    nbd_close(q->nbd);
    q->nbd = NULL;
    return rs_qcow2_child_wait(&q->child, ms, said, said_len);
}

/* ---- open and close ----------------------------------------------------------------- */

static int look_at_header(const char *path, uint32_t *cluster, char *why, size_t why_len)
{
    uint8_t start[RS_QCOW2_HEADER];
    struct rs_qcow2_facts facts;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = fd < 0 ? -1 : pread(fd, start, sizeof(start), 0);
    if (n < 0) return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot read %s: %s", path, strerror(errno));
    if (!rs_qcow2_is(start, (size_t)n) || rs_qcow2_facts(start, (size_t)n, &facts) != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its qcow2 header is damaged");
    if (facts.bar != NULL) return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "%s", facts.bar);
    *cluster = facts.cluster;
    return 0;
}

static int refuse(int code, int end, const char *said, char *why, size_t why_len)
{
    if (end == -ENOENT)
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len,
                            "qcow2 images need qemu-nbd, which is not installed (Debian: qemu-utils)");
    if (code == -ENOMEM) return rs_vm_refuse(RESEAL_ENOMEM, why, why_len, "out of memory");
    if (code == -EILSEQ) return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "its name is no UTF-8");
    if (code == -ETIMEDOUT) return rs_vm_refuse(RESEAL_ETIMEDOUT, why, why_len, "qemu-nbd does not answer");
    if (strstr(said, "lock") != NULL)
        return rs_vm_refuse(RESEAL_EBUSY, why, why_len, "it is in use by another program");
    if (code == -ECONNRESET && said[0] != '\0')
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "QEMU refuses it: %.300s", said);
    return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot run qemu-nbd: %s", strerror(-code));
}

static void give_up(struct rs_qcow2 **q)
{
    if ((*q)->client >= 0) close((*q)->client);
    free((*q)->path);
    free(*q);
    *q = NULL;
}

/* What came of a child; one that was of no use has ended. */
static int settle(struct rs_qcow2 *q, char *why, size_t why_len)
{
    char said[400];
    int code = q->begun == 0 ? connect_child(q) : q->begun;
    if (code == 0) return 0;
    if (q->client >= 0) close(q->client);
    q->client = -1;
    int end = end_child(q, code == -ETIMEDOUT ? 0 : END_MS, said, sizeof(said));
    return refuse(code, end, said, why, why_len);
}

int rs_qcow2_open_begin(struct rs_qcow2 **out, const char *path, unsigned flags, char *why, size_t why_len)
{
    struct rs_qcow2 *q = calloc(1, sizeof(*q));
    *out = NULL;
    if (q == NULL) return rs_vm_refuse(RESEAL_ENOMEM, why, why_len, "out of memory");
    q->child = (struct rs_qcow2_child){.pid = -1, .pidfd = -1, .errors = -1};
    q->client = -1;
    q->flags = flags;
    q->writable = (flags & RS_QCOW2_WRITE) != 0;
    q->path = realpath(path, NULL);
    int code = q->path != NULL
                   ? look_at_header(q->path, &q->cluster, why, why_len)
                   : rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot open %s: %s", path, strerror(errno));
    if (code != 0) {
        give_up(&q);
        return code;
    }
    q->begun = begin_child(q);
    *out = q;
    return 0;
}

int rs_qcow2_open_end(struct rs_qcow2 **q, char *why, size_t why_len)
{
    uint64_t end = in_ms(LOCK_MS);
    const struct timespec pause = {.tv_nsec = 50000000};
    int code = settle(*q, why, why_len);
    while (code == RESEAL_EBUSY && ((*q)->flags & RS_QCOW2_WAIT) != 0 && rs_now_ns() < end) {
        (void)nanosleep(&pause, NULL);
        (*q)->begun = begin_child(*q);
        code = settle(*q, why, why_len);
    }
    if (code != 0) give_up(q);
    return code;
}

int rs_qcow2_open(struct rs_qcow2 **out, const char *path, unsigned flags, char *why, size_t why_len)
{
    int code = rs_qcow2_open_begin(out, path, flags, why, why_len);
    return code == 0 ? rs_qcow2_open_end(out, why, why_len) : code;
}

void rs_qcow2_close_begin(struct rs_qcow2 *q)
{
    if (q->nbd != NULL && !q->stuck && nbd_aio_is_ready(q->nbd) == 1) (void)nbd_shutdown(q->nbd, 0);
}

int rs_qcow2_close(struct rs_qcow2 *q)
{
    if (q == NULL) return 0;
    char said[1];
    rs_qcow2_close_begin(q);
    /* A child that nobody spoke to would wait for somebody else. */
    int code = end_child(q, q->stuck || q->client >= 0 ? 0 : END_MS, said, sizeof(said));
    give_up(&q);
    return code == -ENOENT ? -EIO : code;
}

uint64_t rs_qcow2_size(const struct rs_qcow2 *q)
{
    return q->size;
}

uint32_t rs_qcow2_cluster(const struct rs_qcow2 *q)
{
    return q->cluster;
}

/* ---- transfers ---------------------------------------------------------------------- */

static int error_now(void)
{
    int e = nbd_get_errno();
    return e > 0 ? -e : -EIO;
}

/* Waits for a command. */
static int finish(struct rs_qcow2 *q, int64_t cookie)
{
    uint64_t end = in_ms(IO_MS);
    if (cookie < 0) return error_now();
    for (;;) {
        int done = nbd_aio_command_completed(q->nbd, (uint64_t)cookie);
        if (done > 0) return 0;
        if (done < 0) return error_now();
        if (rs_now_ns() >= end) {
            q->stuck = true;
            return -ETIMEDOUT;
        }
        /* A connection that died ends its commands. */
        if (nbd_poll(q->nbd, remaining(end)) < 0 && nbd_aio_is_ready(q->nbd) != 1 &&
            nbd_aio_command_completed(q->nbd, (uint64_t)cookie) == 0)
            return -EIO;
    }
}

int rs_qcow2_pread(struct rs_qcow2 *q, void *buf, size_t len, uint64_t off)
{
    int code = q->stuck ? -ETIMEDOUT : 0;
    if (!rs_range_ok(off, len, q->size)) return -ENODATA;
    for (size_t at = 0; code == 0 && at < len;) {
        size_t n = RS_MIN(len - at, (size_t)RS_QCOW2_IO_MAX);
        code = finish(q, nbd_aio_pread(q->nbd, (uint8_t *)buf + at, n, off + at, NBD_NULL_COMPLETION, 0));
        at += n;
    }
    return code;
}

int rs_qcow2_pwrite(struct rs_qcow2 *q, const void *buf, size_t len, uint64_t off)
{
    int code = q->stuck ? -ETIMEDOUT : 0;
    if (!rs_range_ok(off, len, q->size)) return -ENOSPC;
    for (size_t at = 0; code == 0 && at < len;) {
        size_t n = RS_MIN(len - at, (size_t)RS_QCOW2_IO_MAX);
        code =
            finish(q, nbd_aio_pwrite(q->nbd, (const uint8_t *)buf + at, n, off + at, NBD_NULL_COMPLETION, 0));
        at += n;
    }
    return code;
}

int rs_qcow2_flush(struct rs_qcow2 *q)
{
    if (q->stuck) return -ETIMEDOUT;
    return q->writable ? finish(q, nbd_aio_flush(q->nbd, NBD_NULL_COMPLETION, 0)) : 0;
}

/* ---- what is stored ----------------------------------------------------------------- */

#define STATUS_MAX (1u << 30)
#define RUN_MAX    (256ull << 20)

struct run {
    uint64_t pos, start, end;
    bool found, over;
};

static int take_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t count,
                        int *error)
{
    struct run *r = arg;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != r->pos) return 0;
    for (size_t i = 0; i + 1 < count && !r->over; i += 2) {
        bool zero = (entries[i + 1] & LIBNBD_STATE_ZERO) != 0;
        if (zero && r->found) {
            r->over = true;
            break;
        }
        if (!zero && !r->found) r->start = r->pos;
        r->found |= !zero;
        r->pos += entries[i];
        if (r->found) r->end = r->pos;
    }
    return 0;
}

int rs_qcow2_data(struct rs_qcow2 *q, uint64_t pos, uint64_t *start, uint64_t *end)
{
    struct run r = {.pos = pos};
    while (!r.over && r.pos < q->size && !(r.found && r.end - r.start >= RUN_MAX)) {
        uint64_t before = r.pos, n = RS_MIN(q->size - r.pos, (uint64_t)STATUS_MAX);
        if (q->stuck) return -ETIMEDOUT;
        nbd_extent_callback take = {.callback = take_extents, .user_data = &r};
        int code = finish(q, nbd_aio_block_status(q->nbd, n, r.pos, take, NBD_NULL_COMPLETION, 0));
        if (code != 0) return code;
        if (r.pos == before && !r.over) return -EPROTO;
    }
    *start = r.start;
    *end = RS_MIN(r.end, q->size);
    return r.found ? 1 : 0;
}
