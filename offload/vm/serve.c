/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "offload/ring/ring.h"
#include "offload/vm/serve-internal.h"

/* A client that does not take its replies keeps the server from stopping for at most this long. */
#define STOP_NS 5000000000ull
/* As long as a sleep and a wake-up take, about; in vain so often, it is left for so many times. */
#define SPIN_NS    8000u
#define SPINS_LOST 4u
/* Up to so many jobs are no stream: in one there is more to do meanwhile than to look for their end. */
#define FEW_JOBS  2u
#define SPINS_OFF 64u
/* The same trouble is told once in this time. */
#define QUIET_NS 5000000000ull
/* A connection that could not be taken for want of something is tried again after this. */
#define ACCEPT_NS 1000000000ull

void rs_vs_say(struct rs_vmserve *s, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (s->o.say != NULL) s->o.say(s->o.arg, line);
}

void rs_vs_file_failed(struct rs_vmserve *s, const struct rs_vs_disk *d, const char *verb, int error)
{
    uint64_t now = rs_now_ns();
    if (s->told_ns != 0 && now - s->told_ns < QUIET_NS) return;
    s->told_ns = now;
    rs_vs_say(s, "disk %s: cannot %s the image: %s", d->spec->name, verb,
              error == -ENODATA ? "the file ends before the disk does" : strerror(-error));
}

/* ---- open -------------------------------------------------------------------- */

static int open_image(struct rs_vmserve *s, struct rs_vs_disk *d, char *why, size_t why_len)
{
    int code = rs_vs_image_open(d);
    if (code != 0) snprintf(why, why_len, "QEMU cannot tell what the image stores");
    s->images++;
    return code;
}

static int open_disk(struct rs_vmserve *s, unsigned i, char *why, size_t why_len)
{
    struct rs_vs_disk *d = &s->disks[i];
    d->spec = &s->o.disks[i];
    d->export = &s->exports[i];
    int code = rs_vs_key_open(s, i);
    if (code != 0) {
        snprintf(why, why_len, "%s", reseal_strerror(code));
        return code;
    }
    d->grain = RS_MAX(d->luks.unit, d->spec->align);
    if (!rs_is_pow2(d->grain) || d->grain > RS_VS_PIECE / 4 ||
        d->luks.data_offset % RS_MAX(d->spec->align, 1u) != 0) {
        snprintf(why, why_len, "its data does not suit O_DIRECT: use --cache writeback");
        return RESEAL_EUNIT;
    }
    code = rs_vs_size_at_start(d);
    if (code != 0) {
        snprintf(why, why_len, "the image is truncated: its header asks for more than %llu bytes",
                 (unsigned long long)d->spec->size);
        return code;
    }
    snprintf(d->export->name, sizeof(d->export->name), "%s", d->spec->name);
    d->export->read_only = d->spec->read_only;
    d->export->minimum = 512;
    d->export->preferred = RS_MAX(d->grain, 4096u);
    return d->spec->image == NULL ? 0 : open_image(s, d, why, why_len);
}

static int open_queue(struct rs_vmserve *s)
{
    struct reseal_queue_options o = {.size = sizeof(o), .depth = RS_VS_DEPTH, .arena = rs_vs_buffers_want()};
    int code = reseal_queue_open(s->o.service, &o, &s->queue);
    if (code != 0) return code;
    size_t len;
    uint8_t *arena = reseal_queue_arena(s->queue, &len);
    return rs_vs_buffers_open(&s->buffers, arena, len);
}

static int make_tables(struct rs_vmserve *s)
{
    s->disks = calloc(s->o.count, sizeof(*s->disks));
    s->exports = calloc(s->o.count, sizeof(*s->exports));
    s->clients = calloc(RS_VS_CLIENTS, sizeof(*s->clients));
    s->requests = calloc(RS_VS_REQUESTS, sizeof(*s->requests));
    if (s->disks == NULL || s->exports == NULL || s->clients == NULL || s->requests == NULL)
        return RESEAL_ENOMEM;
    for (unsigned i = 0; i < RS_VS_CLIENTS; i++) s->clients[i].fd = -1;
    for (unsigned i = RS_VS_REQUESTS; i-- > 0;) {
        s->requests[i].next = s->free_requests;
        s->free_requests = &s->requests[i];
    }
    s->nbd = (struct rs_nbd_server){.exports = s->exports, .count = s->o.count};
    return 0;
}

static int open_all(struct rs_vmserve *s, unsigned *disk, char *why, size_t why_len)
{
    *disk = s->o.count;
    int code = make_tables(s);
    for (unsigned i = 0; code == 0 && i < s->o.count; i++) {
        code = open_disk(s, i, why, why_len);
        if (code != 0) *disk = i;
    }
    if (code == 0) {
        code = open_queue(s);
        if (code != 0) snprintf(why, why_len, "cannot open a queue: %s", reseal_strerror(code));
    }
    if (code == 0) {
        int e = rs_vs_ring_open(s);
        if (e != 0) snprintf(why, why_len, "the kernel refuses io_uring: %s", strerror(-e));
        if (e != 0) code = RESEAL_ENOSUPPORT;
    }
    return code;
}

int rs_vmserve_open(struct rs_vmserve **out, const struct rs_vmserve_options *options, unsigned *disk,
                    char *why, size_t why_len)
{
    *out = NULL;
    if (why_len != 0) why[0] = '\0';
    if (options->count == 0 || options->count > RS_VMSERVE_DISKS_MAX) return RESEAL_EINVAL;
    struct rs_vmserve *s = calloc(1, sizeof(*s));
    if (s == NULL) return RESEAL_ENOMEM;
    s->o = *options;
    int code = open_all(s, disk, why, why_len);
    if (code != 0)
        rs_vmserve_close(s);
    else
        *out = s;
    return code;
}

void rs_vmserve_close(struct rs_vmserve *s)
{
    if (s == NULL) return;
    rs_vs_ring_close(s);
    for (unsigned i = 0; s->disks != NULL && i < s->o.count; i++) {
        rs_vs_image_close(&s->disks[i]);
        rs_vs_key_close(&s->disks[i]);
    }
    reseal_queue_close(s->queue);
    for (unsigned i = 0; s->clients != NULL && i < RS_VS_CLIENTS; i++) {
        if (s->clients[i].fd < 0) continue;
        close(s->clients[i].fd);
        free(s->clients[i].answer);
    }
    rs_vs_buffers_close(&s->buffers);
    free(s->disks);
    free(s->exports);
    free(s->clients);
    free(s->requests);
    free(s);
}

uint64_t rs_vmserve_size(const struct rs_vmserve *s, unsigned disk)
{
    return s->exports[disk].size;
}

/* ---- the loop ---------------------------------------------------------------- */

static void start_poll(struct rs_vmserve *s, struct rs_vs_op *op, enum rs_vs_what what, int fd)
{
    struct io_uring_sqe *sqe = rs_vs_sqe(s);
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    rs_vs_tells(sqe, op, what);
}

static void start_accept(struct rs_vmserve *s)
{
    if (s->accepting || s->stopping || s->connected == RS_VS_CLIENTS) return;
    if (s->accept_ns != 0 && rs_now_ns() - s->accept_ns < ACCEPT_NS) return;
    struct io_uring_sqe *sqe = rs_vs_sqe(s);
    io_uring_prep_accept(sqe, s->o.listener, NULL, NULL, SOCK_CLOEXEC);
    rs_vs_tells(sqe, &s->accept, RS_VS_ACCEPT);
    s->accepting = true;
}

static void stop(struct rs_vmserve *s)
{
    if (s->stopping) return;
    s->stopping = true;
    s->stop_ns = rs_now_ns();
    for (unsigned i = 0; i < RS_VS_CLIENTS; i++)
        if (s->clients[i].fd >= 0) rs_vs_client_leave(&s->clients[i]);
}

static void take_signal(struct rs_vmserve *s)
{
    struct signalfd_siginfo info;
    while (read(s->o.signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP)
            rs_vs_sizes_look(s, true);
        else
            stop(s);
    }
    start_poll(s, &s->signal, RS_VS_SIGNAL, s->o.signals);
}

/* The machine, or this process, is short of something: those that are connected need not suffer. */
static void accept_later(struct rs_vmserve *s, int error)
{
    uint64_t now = rs_now_ns();
    if (s->accept_ns == 0 || now - s->accept_ns > QUIET_NS)
        rs_vs_say(s, "cannot take a connection for now: %s", strerror(error));
    s->accept_ns = now;
}

static void take_accept(struct rs_vmserve *s)
{
    int fd = s->accept.result;
    s->accepting = false;
    if (fd >= 0 && s->stopping)
        close(fd);
    else if (fd >= 0) {
        rs_vs_sizes_look(s, true);
        rs_vs_client_accept(s, fd);
    } else if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) {
        accept_later(s, -fd);
    } else if (fd != -EINTR && fd != -EAGAIN && fd != -ECONNABORTED && !s->stopping) {
        rs_vs_say(s, "cannot take a connection: %s", strerror(-fd));
        s->failed = RESEAL_EIO;
    }
}

static struct rs_vs_client *client_of(struct rs_vmserve *s, struct rs_vs_op *op)
{
    return &s->clients[(size_t)((uint8_t *)op - (uint8_t *)s->clients) / sizeof(*s->clients)];
}

static void take_end(struct rs_vmserve *s, struct rs_vs_op *op)
{
    switch (op->what) {
    case RS_VS_ACCEPT:
        take_accept(s);
        break;
    case RS_VS_SIGNAL:
        take_signal(s);
        break;
    case RS_VS_WAKE:
        s->waking = s->armed = false;
        break;
    case RS_VS_IMAGE_IN:
    case RS_VS_IMAGE_OUT:
    case RS_VS_IMAGE_HEADER:
        rs_vs_image_ready(s, op);
        break;
    case RS_VS_RECEIVE:
        rs_vs_client_received(client_of(s, op));
        break;
    case RS_VS_SEND:
        rs_vs_client_sent(client_of(s, op));
        break;
    default:
        rs_vs_file_ended(s, op);
        break;
    }
}

static void go_clients(struct rs_vmserve *s)
{
    bool late = s->stopping && rs_now_ns() - s->stop_ns > STOP_NS;
    if (late) rs_vs_image_give_up(s);
    /* The first free place is taken: those in use are not far away. */
    for (unsigned i = 0, left = s->connected; left != 0; i++) {
        if (s->clients[i].fd < 0) continue;
        left--;
        if (late) rs_vs_client_drop(&s->clients[i], "it does not take its replies");
        rs_vs_client_go(&s->clients[i]);
    }
    /* What a send that ended at once has freed is for the next turn. */
    if (!s->again) s->freed = false;
}

/*
 * A small job is back sooner than a sleep and a wake-up take: looks for it that long, without a call. Where
 * that was in vain some times, jobs are larger or the service has no core to itself: not for a while, then.
 */
static bool will_spin(struct rs_vmserve *s)
{
    if (s->spins_off == 0) return true;
    s->spins_off--;
    return false;
}

static bool spin(struct rs_vmserve *s)
{
    for (uint64_t end = rs_now_ns() + SPIN_NS; rs_now_ns() < end;) {
        for (unsigned i = 0; i < 32; i++) {
            if (rs_vs_jobs_ready(s) || rs_vs_has_ended(s)) {
                s->spins_lost = 0;
                return true;
            }
            rs_cpu_relax();
        }
    }
    if (++s->spins_lost >= SPINS_LOST) s->spins_off = SPINS_OFF;
    return false;
}

/* Waits for the kernel, for jobs, or a little for both. */
static void idle(struct rs_vmserve *s)
{
    if (s->in_jobs != 0 && s->in_jobs <= FEW_JOBS && will_spin(s)) {
        rs_vs_submit(s);
        if (spin(s)) {
            rs_vs_submit(s);
            return;
        }
    }
    if (s->in_jobs != 0) {
        /* Asks to be told; what came meanwhile is taken first. */
        if (!s->armed && rs_vs_jobs_take(s)) return;
        if (!s->waking) start_poll(s, &s->wake, RS_VS_WAKE, reseal_queue_fd(s->queue));
        s->waking = true;
    }
    rs_vs_sleep(s, s->stopping ? 100 : s->accepting ? 10000 : 1000);
}

/* One turn; true when something moved. */
static bool turn(struct rs_vmserve *s)
{
    bool moved = false;
    s->again = false;
    for (struct rs_vs_op *op; (op = rs_vs_ended(s)) != NULL; moved = true) take_end(s, op);
    if (rs_vs_jobs_ready(s)) moved |= rs_vs_jobs_take(s);
    rs_vs_jobs_submit(s);
    go_clients(s);
    /* What clients were stalled for may have come free just now. */
    rs_vs_jobs_submit(s);
    start_accept(s);
    rs_vs_image_poll(s);
    return moved || s->ended_first != NULL;
}

/* Everything that was acknowledged is in the page cache; now it goes to the disks. */
static int flush_all(struct rs_vmserve *s)
{
    int code = 0;
    for (unsigned i = 0; i < s->o.count; i++) {
        const struct rs_vmserve_disk *d = &s->o.disks[i];
        if (d->read_only) continue;
        int e = d->image != NULL ? rs_qcow2_flush(d->image) : fdatasync(d->fd) == 0 ? 0 : -errno;
        if (e == 0) continue;
        rs_vs_file_failed(s, &s->disks[i], "flush", e);
        code = RESEAL_EIO;
    }
    return code;
}

int rs_vmserve_run(struct rs_vmserve *s)
{
    if (rs_vs_ring_begin(s) != 0) return RESEAL_EIO;
    (void)reseal_queue_fd(s->queue);
    start_poll(s, &s->signal, RS_VS_SIGNAL, s->o.signals);
    while (s->failed == 0 && (!s->stopping || s->connected != 0)) {
        /* What a turn has for the kernel goes with the wait, where there is one. */
        bool moved = turn(s);
        if (moved) rs_vs_sizes_tick(s);
        if (s->again || (moved && (s->in_jobs > FEW_JOBS || rs_vs_has_ended(s) || rs_vs_jobs_ready(s))))
            rs_vs_submit(s);
        else
            idle(s);
    }
    int code = flush_all(s);
    return s->failed != 0 ? s->failed : code;
}
