/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/helper.h"

#include "reseal/reseal.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

int rs_helper_start(void (*run)(const void *arg), const void *arg, pid_t *pid, int *sock)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return RESEAL_EIO;
    *pid = fork();
    if (*pid == 0) {
        /* Nothing of the service's own: listening sockets, the pairs between its programs. */
        if (dup2(pair[1], RS_HELPER_SOCKET) != RS_HELPER_SOCKET) _exit(2);
        (void)close_range(RS_HELPER_SOCKET + 1, ~0u, 0);
        (void)fcntl(RS_HELPER_SOCKET, F_SETFD, FD_CLOEXEC);
        run(arg);
        _exit(2);
    }
    close(pair[1]);
    *sock = pair[0];
    if (*pid > 0) return 0;
    close(pair[0]);
    return RESEAL_EIO;
}
