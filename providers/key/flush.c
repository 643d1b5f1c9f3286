/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/flush.h"

#include "providers/key/events.h"
#include "providers/key/helper.h"
#include "providers/key/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define RS_MSG_FLUSH                                                                                         \
    (RS_MSG_INTERNAL +                                                                                       \
     72) /* keyd -> flusher: none + files and their folder -> status: errno, 0: on the disk */

static const char *const flusher_calls[] = {
    "recvmsg",      "sendmsg",         "fdatasync", "fsync",      "close",
    "rt_sigreturn", "restart_syscall", "exit",      "exit_group", NULL};

/* ---- the process ---------------------------------------------------------------------------- */

static RS_NORETURN void flusher(const void *arg)
{
    const int sock = RS_HELPER_SOCKET;
    struct rs_protections p = {0};
    const struct rs_path none[] = {{NULL, 0}};
    struct rs_msg m;
    (void)arg;
    (void)prctl(PR_SET_NAME, "reseal-flusher");
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    rs_sandbox_process(&p);
    rs_sandbox_capabilities(&p, 0);
    if (rs_sandbox_files(&p, none, RS_SANDBOX_SCOPE_SIGNALS) != 0 || rs_sandbox_calls(&p, flusher_calls) != 0)
        _exit(2);
    while (rs_msg_recv(sock, &m, 0) == 0) {
        int failure = m.header.type == RS_MSG_FLUSH ? 0 : EPROTO;
        for (unsigned i = 0; i < m.nfds; i++)
            if (fdatasync(m.fds[i]) != 0) failure = errno;
        rs_msg_close_fds(&m);
        if (rs_msg_send(sock, RS_MSG_FLUSH | RS_MSG_REPLY, failure, NULL, 0, NULL, 0, 0) != 0) break;
    }
    _exit(0); /* reseal-keyd is gone */
}

int rs_flusher_start(int *sock)
{
    pid_t pid;
    return rs_helper_start(flusher, NULL, &pid, sock);
}

/* ---- reseal-keyd ---------------------------------------------------------------------------- */

static void add_file(struct rs_journal *j, int fds[3], unsigned *n)
{
    if (!j->dirty) return;
    int fd = fcntl(j->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return; /* the next line opens it again */
    j->dirty = false;
    fds[(*n)++] = fd;
}

void rs_flush(struct rs_keyd *d)
{
    struct rs_events *e = d->events;
    int fds[3];
    unsigned n = 0;
    if (e == NULL || e->store == NULL || !e->flusher_runs || e->flushing) return;
    add_file(&e->audit, fds, &n);
    add_file(&e->events, fds, &n);
    if (n == 0) return;
    fds[n] = fcntl(rs_store_folder(e->store), F_DUPFD_CLOEXEC, 0); /* a file may be new in it */
    if (fds[n] >= 0) n++;
    e->flushing = rs_msg_send(e->flusher.fd, RS_MSG_FLUSH, 0, NULL, 0, fds, n, MSG_DONTWAIT) == 0;
    for (unsigned i = 0; i < n; i++) close(fds[i]);
}

static void flushed(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    struct rs_events *e = d->events;
    (void)events;
    int r = rs_msg_recv(w->fd, d->msg, MSG_DONTWAIT);
    if (r == RESEAL_EAGAIN) return;
    if (r != 0) {
        /* As without the nursery: reseald starts us again, with a new one. */
        (void)fputs("reseal-keyd: the process that flushes the audit ended: ending too, to begin anew\n",
                    stderr);
        d->ended = d->failed = true;
        return;
    }
    int failure = d->msg->header.status;
    rs_msg_close_fds(d->msg);
    e->flushing = false;
    if (failure != 0) failure = failure == ENOSPC || failure == EDQUOT ? RESEAL_ESPACE : RESEAL_EIO;
    rs_journal_flushed(&e->audit, failure);
    rs_journal_flushed(&e->events, failure);
    if (failure == 0) rs_flush(d); /* else with the next request */
}

int rs_flush_open(struct rs_keyd *d, int sock)
{
    d->events->flusher = (struct rs_watch){.fd = sock, .ready = flushed};
    d->events->flusher_runs = true;
    return rs_keyd_watch(d, &d->events->flusher);
}
