/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/supervisor.h"

#include "offload/base/sandbox.h"
#include "offload/ring/control.h"
#include "offload/service/internal.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int watch_signals(struct rs_supervisor *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) return RESEAL_EIO;
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signals >= 0 ? 0 : RESEAL_EIO;
}

static void on_signal(struct rs_supervisor *s)
{
    struct signalfd_siginfo info;
    if (read(s->signals, &info, sizeof(info)) != (ssize_t)sizeof(info)) return;
    if (info.ssi_signo != SIGCHLD) s->stop = true;
    /* The process that said "ready"; the two others are noticed by their pidfd. */
    siginfo_t child = {0};
    while (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0 && child.si_pid != 0) {
        if (child.si_pid == s->work.pid || child.si_pid == s->keyd.pid) break;
        waitpid(child.si_pid, NULL, 0);
        child.si_pid = 0;
    }
}

static void on_work(struct rs_supervisor *s)
{
    struct rs_msg msg;
    int e = rs_msg_recv(s->work.socket, &msg, MSG_DONTWAIT);
    if (e == RESEAL_EAGAIN) return;
    if (e != 0) {
        /* It ends: the pidfd will tell. */
        rs_cleanup_close(&s->work.socket);
        return;
    }
    rs_msg_close_fds(&msg);
    if (msg.header.type == RS_MSG_NEED_KEYD) rs_children_pair(s);
    if (msg.header.type != RS_MSG_READY) return;
    if (s->taking_over) rs_takeover_done(s);
    rs_children_say_ready(s);
}

/* What we wait for; order as in on_events(). */
static void step(struct rs_supervisor *s)
{
    bool old = s->successor >= 0 && !s->taking_over;
    struct pollfd p[] = {
        {.fd = s->signals, .events = POLLIN},
        {.fd = s->work.socket, .events = POLLIN},
        {.fd = s->work.pidfd, .events = POLLIN},
        {.fd = s->keyd.pidfd, .events = POLLIN},
        {.fd = s->successor < 0 ? s->admin : -1, .events = POLLIN},
        {.fd = old ? s->successor : -1, .events = POLLIN},
    };
    if (poll(p, RS_ARRAY_LEN(p), old ? -1 : rs_children_due(s)) < 0 && errno != EINTR) s->stop = true;
    if (p[0].revents != 0) on_signal(s);
    if (p[5].revents != 0) rs_takeover_read(s);
    if (s->handed_over || s->stop) return;
    if (p[1].revents != 0) on_work(s);
    if (p[2].revents != 0) rs_children_gone(s, &s->work);
    if (p[2].revents != 0 && s->taking_over) {
        /* Ours could not take it: the one that runs goes on with everything. */
        fputs("reseald: take-over failed; the running service goes on\n", stderr);
        s->stop = true;
        return;
    }
    if (p[3].revents != 0) rs_children_gone(s, &s->keyd);
    if (s->stop) return;
    if (p[4].revents != 0) rs_takeover_accept(s);
    /* While a successor takes over, an ended reseald-work has handed over: nothing is started again yet. */
    if (s->successor < 0 || s->taking_over) rs_children_start(s, -1);
}

static int start(struct rs_supervisor *s)
{
    int inherit = -1;
    int e = rs_children_find(s);
    if (e == 0) e = watch_signals(s);
    if (e == 0) e = rs_folder_open(s);
    if (e == 0 && s->options->takeover) e = rs_takeover_ask(s, &inherit);
    if (e != 0) return e;
    rs_children_start(s, inherit);
    return 0;
}

int rs_supervisor_run(const struct rs_supervisor_options *options)
{
    struct rs_supervisor s = {
        .options = options,
        .folder = -1,
        .lock = -1,
        .control = -1,
        .keys = -1,
        .admin = -1,
        .signals = -1,
        .successor = -1,
        .work = {.pidfd = -1, .socket = -1},
        .keyd = {.pidfd = -1, .socket = -1},
    };
    struct rs_protections protections = {0};
    /* Whatever we were started with is not for our children. */
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) != 0) return 1;
    rs_sandbox_process(&protections);
    /* What it or those that it starts need before they have given up theirs: another user id, files of other
     * users, more descriptors and locked memory than the limits allow, a low port for --agent. */
    rs_sandbox_bound(1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_SETPCAP | 1u << CAP_CHOWN |
                     1u << CAP_FOWNER | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH |
                     1u << CAP_IPC_LOCK | 1u << CAP_SYS_RESOURCE | 1u << CAP_SYS_NICE |
                     1u << CAP_NET_BIND_SERVICE | 1u << CAP_KILL);
    if (start(&s) != 0) return 1;
    while (!s.stop && !s.handed_over) step(&s);
    if (s.handed_over) return 0;
    if (s.taking_over) {
        /* reseal-keyd and the sockets are still the other's. */
        rs_cleanup_close(&s.work.socket);
        return 1;
    }
    rs_children_stop(&s);
    rs_folder_close(&s);
    return s.unusable ? 1 : 0;
}
