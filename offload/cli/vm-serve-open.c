/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/cli/socket.h"
#include "offload/cli/vm-serve.h"
#include "offload/vm/qcow2-served.h"

/* A socket whose server is gone is in the way of a new one, and of no use. */
static int remove_dead_socket(struct rs_serve *s, const struct sockaddr_un *at)
{
    struct stat st;
    if (lstat(at->sun_path, &st) != 0) return 0;
    if (!S_ISSOCK(st.st_mode))
        return rs_failure_set(&s->f, RS_EXIT_REFUSED, "%s is there and is no socket", at->sun_path);
    RS_CLOSE int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) return rs_failure_errno(&s->f, errno, "make", "a socket");
    if (connect(probe, (const struct sockaddr *)at, sizeof(*at)) == 0 || errno == EAGAIN)
        return rs_failure_set(&s->f, RS_EXIT_REFUSED,
                              "%s is served by another program: stop it, or give --socket", at->sun_path);
    if (errno != ECONNREFUSED) return rs_failure_errno(&s->f, errno, "connect to", at->sun_path);
    if (unlink(at->sun_path) != 0) return rs_failure_errno(&s->f, errno, "remove", at->sun_path);
    return 0;
}

/* By the name of the VM, so that two VMs, whose disks have the same nodes, are served side by side. */
static int name_socket(struct rs_serve *s, struct sockaddr_un *at)
{
    char room[256], name[sizeof(s->vmx)];
    bool vm = s->vmx[0] != '\0';
    const char *slash = strrchr(s->vmx, '/');
    snprintf(name, sizeof(name), "%s", vm ? slash != NULL ? slash + 1 : s->vmx : s->images[0].name);
    char *suffix = vm ? strrchr(name, '.') : NULL;
    if (suffix != NULL) *suffix = '\0';
    int n = s->socket != NULL
                ? snprintf(at->sun_path, sizeof(at->sun_path), "%s", s->socket)
                : snprintf(at->sun_path, sizeof(at->sun_path), "%s/%s-%s.sock",
                           rs_socket_folder(s->runtime_dir, room, sizeof(room)), vm ? "vm" : "disk", name);
    if (n <= 0 || (size_t)n >= sizeof(at->sun_path))
        return rs_failure_set(&s->f, RS_EXIT_USAGE,
                              "the name of the socket is too long: give a short --socket");
    return 0;
}

int rs_serve_listen(struct rs_serve *s)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int code = name_socket(s, &at);
    if (code == 0) code = remove_dead_socket(s, &at);
    if (code != 0) return code;
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listener < 0) return rs_failure_errno(&s->f, errno, "make", "a socket");
    /* Nobody else from its first moment on. */
    mode_t old = umask(0177);
    int bound = bind(s->listener, (const struct sockaddr *)&at, sizeof(at)), error = errno;
    umask(old);
    if (bound != 0) return rs_failure_errno(&s->f, error, "make the socket", at.sun_path);
    memcpy(s->path, at.sun_path, sizeof(s->path));
    if (listen(s->listener, 64) != 0) return rs_failure_errno(&s->f, errno, "listen at", at.sun_path);
    return 0;
}

int rs_serve_signals(struct rs_serve *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    s->signals =
        sigprocmask(SIG_BLOCK, &set, NULL) == 0 ? signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK) : -1;
    return s->signals >= 0 ? 0 : rs_failure_errno(&s->f, errno, "take", "signals");
}

void rs_serve_close(struct rs_serve *s)
{
    if (s->path[0] != '\0') (void)unlink(s->path);
    if (s->listener >= 0) close(s->listener);
    if (s->signals >= 0) close(s->signals);
    reseal_close(s->service);
    for (unsigned i = 0; i < s->count; i++) {
        if (s->images[i].headers >= 0) rs_qcow2_served_end(s->images[i].look.path, s->images[i].headers);
        rs_file_close(&s->images[i].file);
        if (s->images[i].header >= 0) close(s->images[i].header);
    }
    if (s->lock >= 0) close(s->lock);
}
