/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/supervisor.h"

#include "offload/ring/control.h"
#include "offload/service/internal.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define TAKEOVER_VERSION 1u

/* ---- successor ------------------------------------------------------------------------- */

int rs_takeover_ask(struct rs_supervisor *s, int *inherit)
{
    struct rs_msg_takeover ask = {.version = TAKEOVER_VERSION}, answer;
    struct rs_msg second;
    int fds[4] = {-1, -1, -1, -1};
    *inherit = -1;
    s->taking_over = true;
    s->successor = rs_folder_connect(s, "admin.sock");
    if (s->successor < 0) {
        fprintf(stderr, "reseald: %s: no service to take over: start one without --takeover\n",
                s->options->runtime_dir);
        return RESEAL_ENOSERVICE;
    }
    int e = rs_msg_call(s->successor, RS_MSG_TAKEOVER, &ask, sizeof(ask), NULL, 0, &answer, sizeof(answer),
                        fds, 4);
    if (e == 0) {
        s->control = fds[0];
        s->keys = fds[1];
        s->admin = fds[2];
        s->lock = fds[3];
        e = rs_msg_recv(s->successor, &second, 0);
    }
    if (e == 0 && second.nfds == 3) {
        s->keyd.socket = rs_msg_take_fd(&second, 0);
        s->keyd.pidfd = rs_msg_take_fd(&second, 1);
        *inherit = rs_msg_take_fd(&second, 2);
        return 0;
    }
    fprintf(stderr, "reseald: take-over refused: %s\n", reseal_strerror(e != 0 ? e : RESEAL_EPROTO));
    return e != 0 ? e : RESEAL_EPROTO;
}

void rs_takeover_done(struct rs_supervisor *s)
{
    char pid[16];
    int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    if (ftruncate(s->lock, 0) != 0 || rs_pwrite_full(s->lock, pid, (size_t)n, 0) != 0)
        fputs("reseald: the lock file keeps the old process id\n", stderr);
    if (rs_msg_send(s->successor, RS_MSG_TAKEOVER_DONE, 0, NULL, 0, NULL, 0, 0) != 0)
        fputs("reseald: the old service is gone before it let go\n", stderr);
    rs_cleanup_close(&s->successor);
    s->taking_over = false;
}

/* ---- the one that runs ------------------------------------------------------------------ */

/* Only the service's own user and root; the socket's mode says so too. */
static bool allowed(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) return false;
    return cred.uid == 0 || cred.uid == geteuid();
}

void rs_takeover_accept(struct rs_supervisor *s)
{
    int fd = accept4(s->admin, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return;
    if (s->successor >= 0 || !allowed(fd))
        close(fd);
    else
        s->successor = fd;
}

static int give(struct rs_supervisor *s)
{
    int pair[2];
    struct rs_msg_takeover answer = {.version = TAKEOVER_VERSION};
    if (s->work.pidfd < 0 || s->keyd.pidfd < 0) return RESEAL_EBUSY;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return RESEAL_ENOMEM;
    int first[4] = {s->control, s->keys, s->admin, s->lock};
    int second[3] = {s->keyd.socket, s->keyd.pidfd, pair[0]};
    int e = rs_msg_send(s->work.socket, RS_MSG_HAND_OVER, 0, NULL, 0, &pair[1], 1, MSG_DONTWAIT);
    if (e == 0)
        e = rs_msg_send(s->successor, RS_MSG_TAKEOVER | RS_MSG_REPLY, 0, &answer, sizeof(answer), first, 4,
                        0);
    if (e == 0)
        e = rs_msg_send(s->successor, RS_MSG_TAKEOVER | RS_MSG_REPLY, 0, &answer, sizeof(answer), second, 3,
                        0);
    close(pair[0]);
    close(pair[1]);
    return e;
}

void rs_takeover_read(struct rs_supervisor *s)
{
    struct rs_msg msg;
    int e = rs_msg_recv(s->successor, &msg, MSG_DONTWAIT);
    if (e == RESEAL_EAGAIN) return;
    if (e == 0) rs_msg_close_fds(&msg);
    if (e == 0 && msg.header.type == RS_MSG_TAKEOVER_DONE) {
        s->handed_over = true;
        return;
    }
    const struct rs_msg_takeover *ask = (const void *)msg.body;
    if (e == 0 && msg.header.type == RS_MSG_TAKEOVER && msg.header.length == sizeof(*ask)) {
        e = ask->version == TAKEOVER_VERSION ? give(s) : RESEAL_EVERSION;
        if (e == 0) return;
        if (rs_msg_send(s->successor, RS_MSG_TAKEOVER | RS_MSG_REPLY, e, NULL, 0, NULL, 0, MSG_DONTWAIT) != 0)
            fputs("reseald: the successor went away\n", stderr);
    }
    /* It failed or gave up: everything is still ours, and we go on. */
    rs_cleanup_close(&s->successor);
}
